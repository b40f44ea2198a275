"""From events and draws to scores: queries, plans, attribution, self-influence, norms."""
