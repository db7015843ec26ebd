"""What is fast, against whom, measured side by side in one run."""
