"""What every transport shares: admission, the queue, the one worker, and the store in service.

It knows engines by `engine.protocol`, and tells an `observer.ServingObserver` what happens.
"""
