"""`cohort view`: a local web application that shows runs, their rollouts and every token of them."""
