"""Analysis reads finished runs: tables, figures, scaling, the report."""
