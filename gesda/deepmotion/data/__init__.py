"""Motion as it comes: containers, readers of files, downloads, and simulated gestures."""
