"""What operators see: log, metrics, audits, impressions."""
