"""Pictures, charts and the report; no model is known here."""
