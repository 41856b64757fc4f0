'use strict';
// The Node client etcd3 against the member whose url is in the environment. tests/tests/clients.rs
// runs this with mocha; the client's own tests, which come with an older release of it, run beside it.

const { expect } = require('chai');
const { Etcd3, EtcdPermissionDeniedError, EtcdLeaseInvalidError } = require('etcd3');

const hosts = process.env.KVORUM_TEST_ENDPOINT;
const once = (emitter, event) => new Promise(resolve => emitter.once(event, resolve));

describe('etcd3', () => {
  let client;
  let root;
  before(() => (root = new Etcd3({ hosts })));
  after(() => root.close());
  beforeEach(function () {
    // Each test has its own keys.
    client = root.namespace(`/node/${this.currentTest.title}/`);
  });

  it('puts, gets and deletes', async () => {
    expect(await client.get('none').string()).to.equal(null);
    const binary = Buffer.from([0, 255, 1]);
    await client.put('a').value(binary);
    expect(await client.get('a').buffer()).to.deep.equal(binary);
    await client.put('b').value(7);
    expect(await client.getAll().keys()).to.deep.equal(['a', 'b']);
    expect(await client.getAll().sort('Key', 'Descend').limit(1).keys()).to.deep.equal(['b']);
    expect(await client.getAll().count()).to.equal(2);
    expect((await client.delete().all()).deleted).to.equal('2');
  });

  it('compares and sets', async () => {
    const compared = () =>
      client
        .if('a', 'Create', '==', 0)
        .then(client.put('a').value('first'))
        .else(client.get('a'))
        .commit();
    expect((await compared()).succeeded).to.equal(true);
    const second = await compared();
    expect(second.succeeded).to.equal(false);
    const range = second.responses[0].response_range;
    expect(range.kvs[0].value.toString()).to.equal('first');
  });

  it('runs transactions in memory until nobody was in between', async () => {
    await client.put('n').value(0);
    const add = () =>
      client.stm().transact(async tx => {
        await tx.put('n').value((await tx.get('n').number()) + 1);
      });
    await Promise.all([add(), add(), add()]);
    expect(await client.get('n').number()).to.equal(3);
  });

  it('watches', async () => {
    const watcher = await client.watch().prefix('').withPreviousKV().create();
    const put = once(watcher, 'put');
    await client.put('a').value('one');
    expect((await put).value.toString()).to.equal('one');
    const gone = new Promise(resolve =>
      watcher.once('delete', (kv, previous) => resolve(previous.value.toString())),
    );
    await client.delete().key('a');
    expect(await gone).to.equal('one');
    await watcher.cancel();
  });

  it('keeps leases alive and revokes them', async () => {
    const lease = client.lease(60);
    await lease.put('a').value('leased');
    await lease.keepaliveOnce();
    expect((await client.get('a').exec()).kvs[0].lease).to.equal(await lease.grant());
    await lease.revoke();
    expect(await client.get('a').string()).to.equal(null);
    const gone = client.put('a').value('b').lease('123456789');
    const refusal = await gone.exec().then(() => null, error => error);
    expect(refusal).to.be.instanceof(EtcdLeaseInvalidError);
  });

  it('locks', async () => {
    const held = await client.lock('l').acquire();
    const refusal = await client.lock('l').acquire().then(() => null, error => error);
    expect(refusal).to.be.instanceof(Error);
    await held.release();
    await (await client.lock('l').acquire()).release();
  });

  it('elects', async () => {
    const election = client.election('e', 60);
    const observer = await election.observe();
    const seen = once(observer, 'change');
    const first = election.campaign('first');
    await once(first, 'elected');
    expect(await seen).to.equal('first');
    expect(await election.leader()).to.equal('first');
    const next = election.campaign('second');
    const changed = new Promise(resolve =>
      observer.on('change', leader => leader === 'second' && resolve()),
    );
    await first.resign();
    await Promise.all([once(next, 'elected'), changed]);
    await next.resign();
    await observer.cancel();
  });

  it('logs in', async () => {
    const role = await root.role('node').create();
    await role.grant({ permission: 'Readwrite', range: root.range({ prefix: '/node/logs in/' }) });
    const admin = await root.user('root').create('secret');
    await admin.addRole('root');
    await root.user('node').create('pass').then(user => user.addRole('node'));
    await root.auth.authEnable();
    const as = (username, password) => new Etcd3({ hosts, auth: { username, password } });
    const [user, boss] = [as('node', 'pass'), as('root', 'secret')];
    try {
      await user.put('/node/logs in/a').value('mine');
      const refusal = await user.put('b').value('theirs').exec().then(() => null, error => error);
      expect(refusal).to.be.instanceof(EtcdPermissionDeniedError);
    } finally {
      await boss.auth.authDisable();
      user.close();
      boss.close();
    }
  });
});
