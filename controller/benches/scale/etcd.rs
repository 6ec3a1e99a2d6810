//! The objects of a simulated cluster, put where the API server keeps them. By the API server itself, a hundred thousand pods and
//! their statuses would take ten minutes; it reads them from etcd in a few seconds, and serves them as it does any other.

use futures::StreamExt as _;
use http::uri::PathAndQuery;
use tonic::Request;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use crate::world::Kept;

/// Puts under way at once: etcd writes to the disk once for all that it has got.
const AT_ONCE: usize = 128;

#[derive(Clone, PartialEq, prost::Message)]
struct Put {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Done {}

/// Puts all of them. Returns how many there were.
pub(crate) async fn fill(port: u16, objects: impl Iterator<Item = Kept>) -> usize {
    let channel = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let puts = futures::stream::iter(objects).map(|(key, object)| put(channel.clone(), key, object.to_string()));
    puts.buffer_unordered(AT_ONCE).count().await
}

async fn put(channel: Channel, key: String, value: String) {
    let mut etcd = Grpc::new(channel);
    etcd.ready().await.unwrap();
    let put = Put {
        key: key.into_bytes(),
        value: value.into_bytes(),
    };
    let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
    etcd.unary(Request::new(put), path, ProstCodec::<Put, Done>::default())
        .await
        .unwrap();
}
