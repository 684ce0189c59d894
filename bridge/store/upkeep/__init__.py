"""Time-related upkeep: clock jumps, stored times too far ahead, deletion of old rows."""
