"""One model of stars: a transformer over any observation and any label."""
