"""An agent that fits, plans observations and reports: tools, planners, and the loop that joins them."""
