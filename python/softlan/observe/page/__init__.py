"""The relay's web side: a page, metrics, and whether it is well. Needs the extra `page`; only `options.py` does without it.

`app.py` answers requests (starlette), `gate.py` says who may ask, `sampler.py` takes a snapshot now and then so that watchers cost
the relay nothing, `server.py` runs it all on the relay's own event loop (uvicorn). `static/` is what the browser gets.
"""
