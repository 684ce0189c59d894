"""Goals before they are sent: made once, parked until their visitor is known, given up."""
