"""Views: pictures, tables and pages of what a run left. They never train."""
