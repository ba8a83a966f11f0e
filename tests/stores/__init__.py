"""Real model stores for tests: contract tests reach them on loopback, pods of the local cluster on the bridge.

==================  ==================================================  ============================================
`s3.S3`             versitygw on a folder                               `s3://models/PATH`
`gcs.Gcs`           fake-gcs-server in memory (it refuses nobody)       `gs://models/PATH`
`azure.Azure`       azurite-blob in memory                              `az://devstoreaccount1/models/PATH`
`registry.Registry` Debian's docker-registry, password or token login   `oci://HOST:PORT/REPOSITORY:TAG`
`https_server`      our own, with faults by path                        `https://HOST:PORT/PATH`
`hugging_face`      our own: the Hub's routes that its library uses     `hf://ORGANISATION/NAME[/PATH][@REVISION]`
==================  ==================================================  ============================================

Each is a `store.Store` and a context manager: `with S3(tmp_path) as store: store.put_tree("classifier", files)`. For
pods: `S3(tmp_path, address=BRIDGE_ADDRESS, host="s3.stores.svc.cluster.local")` listens on the bridge and says that
name in its URLs and certificates; the name is the test's to publish, at the same port. With `tls=tls.issue(...)` the
bucket stores and the Hub speak HTTPS too. A store can be stopped and started again at the same address: versitygw, the
registry and our own servers keep what was put, the others forget it.

Programs come into the cache of the local cluster when a store is first started: versitygw and fake-gcs-server are built
from the Go modules in `tests/cluster/gomods`, azurite is an npm package, docker-registry an unpacked Debian package.
No process outlives the tests, even when they are killed.
"""
