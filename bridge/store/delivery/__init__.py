"""Goals on their way: claimed within the rate limit, sent, in doubt, looked up, settled; pauses of destinations."""
