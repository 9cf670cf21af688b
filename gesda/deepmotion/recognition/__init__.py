"""From sequences to labels: the recogniser and its parts."""
