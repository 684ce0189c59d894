"""What operators see and do: lists, searches, states, retries, forgetting a person."""
