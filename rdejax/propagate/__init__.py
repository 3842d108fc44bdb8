"""The one place where time is."""
