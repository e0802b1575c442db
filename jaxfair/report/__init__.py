"""From records to tables, figures and a web page."""
