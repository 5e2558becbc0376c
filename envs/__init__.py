"""Trading environments as pure functions over one shared market."""
