"""What stores of hundreds of tasks cost, and how well inputs are routed among so many."""
