"""Time-related upkeep: clocks that jump, stored times too far ahead, deletion of old rows."""
