"""The parts of a rule: paths, filters, templates, conditions and named values. Evaluating them never raises."""
