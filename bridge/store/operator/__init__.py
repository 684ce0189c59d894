"""What people see and do: lists, searches, states, retries, forgetting a person."""
