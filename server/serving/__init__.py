"""What every transport shares: admission, the queue, the one worker, and the store in service."""
