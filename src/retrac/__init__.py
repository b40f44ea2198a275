"""retrac."""
