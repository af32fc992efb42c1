"""Measures of vectors beside baselines: judged similar entities, and users' held-out engagements."""
