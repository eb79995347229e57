"""Running, reporting, looking after an installation: what people start from the command line."""
