"""The Python client etcd3 against the member whose port is the first argument.

tests/tests/clients.rs runs this; `python -m unittest` is what it is.
"""

import os
import threading
import unittest

import etcd3

HOST, PORT = "127.0.0.1", int(os.environ["KVORUM_TEST_PORT"])
PATIENCE = float(os.environ.get("KVORUM_PATIENCE", "30"))


class Etcd3Test(unittest.TestCase):
    def setUp(self):
        self.client = etcd3.client(host=HOST, port=PORT, timeout=PATIENCE)
        # Each test has its own keys.
        self.prefix = "/python/" + self.id() + "/"

    def tearDown(self):
        self.client.close()

    def key(self, name):
        return self.prefix + name

    def test_put_and_get(self):
        self.assertEqual(self.client.get(self.key("none")), (None, None))
        self.client.put(self.key("a"), "one")
        self.client.put(self.key("a"), b"\x00\xff binary")
        value, meta = self.client.get(self.key("a"))
        self.assertEqual(value, b"\x00\xff binary")
        self.assertEqual(meta.key, self.key("a").encode())
        self.assertEqual(meta.version, 2)
        self.assertGreater(meta.mod_revision, meta.create_revision)
        self.assertEqual(self.client.get(self.key("a"), serializable=True)[0], value)

    def test_put_with_prev_kv(self):
        self.client.put(self.key("a"), "one")
        response = self.client.put(self.key("a"), "two", prev_kv=True)
        self.assertEqual(response.prev_kv.value, b"one")

    def test_get_prefix_sorted_and_ranges(self):
        for name in ("b", "a", "c"):
            self.client.put(self.key(name), name.upper())
        pairs = list(self.client.get_prefix(self.prefix, sort_order="descend"))
        self.assertEqual([value for value, _ in pairs], [b"C", b"B", b"A"])
        pairs = list(self.client.get_prefix(self.prefix, sort_order="ascend", sort_target="mod"))
        self.assertEqual([value for value, _ in pairs], [b"B", b"A", b"C"])
        pairs = list(self.client.get_range(self.key("a"), self.key("c")))
        self.assertEqual([value for value, _ in pairs], [b"A", b"B"])
        keys = [meta.key for _, meta in self.client.get_prefix(self.prefix, keys_only=True)]
        self.assertEqual(len(keys), 3)

    def test_delete(self):
        self.client.put(self.key("a"), "one")
        self.assertTrue(self.client.delete(self.key("a")))
        self.assertFalse(self.client.delete(self.key("a")))
        for name in ("x", "y", "z"):
            self.client.put(self.key(name), "v")
        self.assertEqual(self.client.delete_prefix(self.prefix).deleted, 3)

    def test_transaction(self):
        txn, key = self.client.transactions, self.key("a")
        create = lambda: self.client.transaction(
            compare=[txn.version(key) == 0],
            success=[txn.put(key, "created")],
            failure=[txn.get(key)],
        )
        self.assertEqual(create()[0], True)
        succeeded, responses = create()
        self.assertFalse(succeeded)
        self.assertEqual(responses[0][0][0], b"created")
        succeeded, _ = self.client.transaction(
            compare=[txn.value(key) == "created", txn.mod(key) > 0, txn.create(key) != 0],
            success=[txn.delete(key), txn.put(self.key("b"), "moved")],
            failure=[],
        )
        self.assertTrue(succeeded)
        self.assertIsNone(self.client.get(key)[0])

    def test_replace_and_put_if_not_exists(self):
        self.assertTrue(self.client.put_if_not_exists(self.key("a"), "1"))
        self.assertFalse(self.client.put_if_not_exists(self.key("a"), "2"))
        self.assertTrue(self.client.replace(self.key("a"), "1", "3"))
        self.assertFalse(self.client.replace(self.key("a"), "1", "4"))

    def test_lease(self):
        lease = self.client.lease(1000)
        self.client.put(self.key("a"), "leased", lease=lease)
        self.assertEqual(lease.granted_ttl, 1000)
        self.assertLessEqual(lease.remaining_ttl, 1000)
        self.assertEqual(list(lease.keys), [self.key("a").encode()])
        self.assertEqual(lease.refresh()[0].TTL, 1000)
        lease.revoke()
        self.assertIsNone(self.client.get(self.key("a"))[0])

    def test_lease_expires(self):
        gone = threading.Event()
        key = self.key("a")

        def watched(response):
            if any(isinstance(event, etcd3.events.DeleteEvent) for event in response.events):
                gone.set()

        watch_id = self.client.add_watch_callback(key, watched)
        self.client.put(key, "short", lease=self.client.lease(1))
        self.assertTrue(gone.wait(PATIENCE))
        self.client.cancel_watch(watch_id)

    def test_watch(self):
        events, cancel = self.client.watch_prefix(self.prefix)
        self.client.put(self.key("a"), "1")
        self.client.put(self.key("a"), "2")
        self.client.delete(self.key("a"))
        seen = [next(events) for _ in range(3)]
        cancel()
        kinds = [type(event).__name__ for event in seen]
        self.assertEqual(kinds, ["PutEvent", "PutEvent", "DeleteEvent"])
        self.assertEqual([event.value for event in seen], [b"1", b"2", b""])
        self.assertEqual(seen[1].version, 2)

    def test_watch_from_a_revision(self):
        first = self.client.put(self.key("a"), "1").header.revision
        self.client.put(self.key("a"), "2")
        events, cancel = self.client.watch(self.key("a"), start_revision=first)
        self.assertEqual([next(events).value for _ in range(2)], [b"1", b"2"])
        cancel()

    def test_compact(self):
        first = self.client.put(self.key("a"), "1").header.revision
        self.client.put(self.key("a"), "2")
        self.client.compact(first, physical=True)
        events, _ = self.client.watch(self.key("a"), start_revision=first - 1)
        with self.assertRaises(etcd3.exceptions.RevisionCompactedError):
            next(events)

    def test_lock(self):
        with self.client.lock(self.key("lock"), ttl=60) as lock:
            self.assertTrue(lock.is_acquired())
            other = self.client.lock(self.key("lock"), ttl=60)
            self.assertFalse(other.acquire(timeout=0))
        self.assertFalse(lock.is_acquired())

    def test_status_and_members(self):
        status = self.client.status()
        self.assertGreaterEqual(tuple(map(int, status.version.split(".")))[:2], (3, 5))
        members = list(self.client.members)
        self.assertEqual(len(members), 1)
        self.assertEqual(status.leader.id, members[0].id)


if __name__ == "__main__":
    unittest.main()
