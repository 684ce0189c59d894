"""What a rule is made of: paths, filters, templates, conditions and named values, compiled and read. Nothing raises."""
