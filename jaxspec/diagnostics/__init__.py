"""Is it calibrated, is it right, how close to the best possible: measures and pictures of posteriors."""
