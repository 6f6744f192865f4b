"""llama.cpp's own server in this process: `python llama_server.py MODEL.gguf PORT`, until it is killed.

Run by the interpreter of build/llama, where `xllamacpp` is installed.
"""

import signal
import sys

import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.hostnames = ["127.0.0.1"]
params.port = int(sys.argv[2])
params.n_ctx = 4096
params.n_parallel = 1
params.use_jinja = True
# Threads of ggml wait for each other by spinning: on a machine that is busy, one is faster than two.
params.cpuparams.n_threads = 1
server = xllamacpp.Server(params)
signal.pause()
