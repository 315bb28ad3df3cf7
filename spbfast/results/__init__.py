"""Reading results: datasets, comparisons, scores, figures and the report."""
