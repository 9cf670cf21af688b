"""From samples to events, as they come."""
