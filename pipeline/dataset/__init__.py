"""The published data set: splits, HelpSteer2's row format, provenance, card."""
