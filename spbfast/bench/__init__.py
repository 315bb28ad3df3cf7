"""Speed, beside a yardstick of the same run."""
