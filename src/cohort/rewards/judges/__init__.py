"""Language models that judge: a local one, a server's, or the run's own policy, asked within limits and never twice."""
