"""Upload a model to a store, for a person or a CI job: what `conch push` does.

One module per kind of store. Credentials come from the environment, as the tools of each store take them; no policy of
an installation applies here: whoever runs this decides where their own machine connects to.
"""
