"""Goals on their way: claimed within the rate limit, sent, in doubt, read back, settled; pauses of destinations."""
