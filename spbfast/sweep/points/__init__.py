"""Which points a sweep visits, and what makes each of them itself."""
