//! gRPC's messages as they come in the body of a request and go in that of its answer, with as little kept between them as there is to
//! keep: there are thousands of streams, and for hours each says nothing.
//!
//! Law: a stream of which every message was read whole holds no buffer. tonic's own reader holds, for as long as the stream lasts, one
//! of the size of its largest message, which is the first: all that a node has seen.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use http_body_util::BodyExt as _;
use prost::Message;
use tonic::body::Body;
use tonic::codec::{BufferSettings, Codec};
use tonic::server::NamedService;
use tonic::{Code, Request, Status};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};
use tower::Service;

/// Bytes of one message at most. The first of a stream carries everything that a node has seen: about 250 bytes a flow, so this is
/// room for a quarter of a million.
const LARGEST: usize = 64 * 1024 * 1024;

/// Bytes before a message: whether it is compressed, and its length.
const HEADER: usize = 5;

/// Room for what is written next: an acknowledgement takes 16 bytes at most.
const ANSWER: usize = 64;

/// When so much waits to be written it is written first: tonic's own default.
const YIELD: usize = 32 * 1024;

/// The codec of the protocol: `ProstCodec` with buffers for what is sent, not for what might be.
#[derive(Clone, Copy, Debug)]
pub struct Small<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Small<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for Small<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::new(ANSWER, YIELD))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(BufferSettings::new(ANSWER, YIELD))
    }
}

/// A service whose requests' bodies are read by [`Messages::of`]. In their place it is given empty ones.
#[derive(Clone, Debug)]
pub(super) struct Apart<S>(pub(super) S);

/// A body on its way around a service. What is passed along with a request has to be one that could be copied.
#[derive(Clone)]
struct Passed(Arc<Mutex<Option<Body>>>);

impl<S: NamedService> NamedService for Apart<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Apart<S>
where
    S: Service<http::Request<Body>, Error = Infallible>,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        parts.extensions.insert(Passed(Arc::new(Mutex::new(Some(body)))));
        self.0.call(http::Request::from_parts(parts, Body::empty()))
    }
}

/// The messages of a request.
#[derive(Debug)]
pub(super) struct Messages<T> {
    body: Body,
    /// What was read of messages that were not returned.
    read: Vec<u8>,
    kind: PhantomData<fn() -> T>,
}

impl<T: Message + Default> Messages<T> {
    /// Those of a request that came through [`Apart`].
    pub(super) fn of<M>(request: Request<M>) -> Self {
        let (_, mut extensions, _) = request.into_parts();
        let passed = extensions.remove::<Passed>();
        let body = passed.and_then(|Passed(body)| body.lock().unwrap_or_else(PoisonError::into_inner).take());
        Self::new(body.unwrap_or_default())
    }

    fn new(body: Body) -> Self {
        Self {
            body,
            read: Vec::new(),
            kind: PhantomData,
        }
    }

    /// The next one; `None` when there will be no more. Nothing is lost if this is not waited for to the end and called again.
    pub(super) async fn next(&mut self) -> Result<Option<T>, Status> {
        loop {
            if let Some(end) = self.end()? {
                let message = T::decode(&self.read[HEADER..end]);
                // What is left is moved, so that the room of what was read is free.
                self.read = self.read.split_off(end);
                return message
                    .map(Some)
                    .map_err(|error| Status::internal(format!("a message cannot be decoded: {error}")));
            }
            match self.body.frame().await {
                // No room is made for what is only said to come.
                Some(Ok(frame)) => self
                    .read
                    .extend_from_slice(frame.data_ref().map_or(&[], |data| &data[..])),
                // The other end has left.
                Some(Err(status)) if status.code() == Code::Cancelled => return Ok(None),
                Some(Err(status)) => return Err(status),
                None if self.read.is_empty() => return Ok(None),
                None => return Err(Status::internal("the stream ended within a message")),
            }
        }
    }

    /// Where the first message ends, if it was read whole.
    fn end(&self) -> Result<Option<usize>, Status> {
        let Some((&[compressed, a, b, c, d], rest)) = self.read.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        if compressed != 0 {
            return Err(Status::unimplemented("messages are taken uncompressed"));
        }
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > LARGEST {
            return Err(Status::out_of_range(format!(
                "a message of {length} bytes is more than the {LARGEST} that are taken"
            )));
        }
        Ok((rest.len() >= length).then_some(HEADER + length))
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, StreamExt as _, stream};
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use proptest::prelude::*;

    use super::*;
    use crate::receive::Increment;

    fn messages(frames: Vec<Vec<u8>>) -> Messages<Increment> {
        let frames = stream::iter(frames).map(|data| Ok::<_, Status>(Frame::data(data.into())));
        Messages::new(Body::new(StreamBody::new(frames)))
    }

    fn encoded(sequence: u64, length: usize) -> Vec<u8> {
        let report = vec![7; length];
        let message = Increment { sequence, report }.encode_to_vec();
        let mut bytes = vec![0];
        bytes.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        bytes.extend(message);
        bytes
    }

    /// The next one of a body that has come whole.
    fn next(messages: &mut Messages<Increment>) -> Result<Option<Increment>, Code> {
        let next = messages.next().now_or_never().unwrap();
        next.map_err(|status| status.code())
    }

    proptest! {
        #[test]
        fn messages_come_as_they_were_sent_however_they_are_cut(
            lengths in prop::collection::vec(0_usize..300, 0..6), sizes in prop::collection::vec(1_usize..200, 1..8)
        ) {
            let sent: Vec<u8> = (0..).zip(&lengths).flat_map(|(number, length)| encoded(number, *length)).collect();
            let mut rest = &sent[..];
            let mut frames = Vec::new();
            for size in sizes.into_iter().cycle() {
                let (frame, after) = rest.split_at(size.min(rest.len()));
                frames.push(frame.to_vec());
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            let mut messages = messages(frames);
            for (number, length) in (0..).zip(lengths) {
                let Increment { sequence, report } = next(&mut messages).unwrap().unwrap();
                prop_assert_eq!((sequence, report), (number, vec![7; length]));
            }
            prop_assert_eq!(messages.read.capacity(), 0);
            prop_assert_eq!(next(&mut messages), Ok(None));
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let mut cut = encoded(1, 20);
        cut.pop();
        let compressed = vec![1, 0, 0, 0, 0];
        let huge = vec![0, 255, 255, 255, 255];
        let garbage = vec![0, 0, 0, 0, 1, 255];
        for (bytes, code) in [
            (cut, Code::Internal),
            (compressed, Code::Unimplemented),
            (huge, Code::OutOfRange),
            (garbage, Code::Internal),
        ] {
            assert_eq!(next(&mut messages(vec![bytes])), Err(code));
        }
    }
}
