"""What time does to the database: clocks that jump, times that lie ahead, what is no longer needed."""
