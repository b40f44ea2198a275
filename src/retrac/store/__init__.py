"""Features of samples on disk: one table for each feature and weight. Knows no methods."""
