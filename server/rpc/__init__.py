"""gRPC as a transport of the Open Inference Protocol, over the same requests, answers and service as HTTP.

Only who opens its port needs the extra `grpc`; nothing else imports this folder's modules.
"""
