//! Which topic it is: the id that a cluster gives to each topic that is made, and never again to another one.
//!
//! Comes in: names of topics. Goes out: their ids as Kafka's tools print them. A name says nothing after a topic was deleted
//! and made anew: its offsets begin again and mean other records. Brokers before 2.8 have no ids; then none is returned.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{CStr, CString, c_char},
    ptr::{self, NonNull},
    sync::Arc,
    time::Duration,
};

use rdkafka::{
    ClientContext, bindings as native,
    client::Client,
    error::{KafkaError, RDKafkaErrorCode},
    types::RDKafkaRespErr,
};

/// How long a broker may take: as for metadata, below the time after which a group would miss its member.
const TIMEOUT_MS: i32 = 5_000;

/// How long the answer is waited for: librdkafka itself gives up before.
const PATIENCE: Duration = Duration::from_millis(TIMEOUT_MS as u64 + 1_000);

/// The id that stands for none.
const NO_ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// Something of librdkafka's that is given back when it goes out of scope.
struct Held<T>(NonNull<T>, unsafe extern "C" fn(*mut T));

impl<T> Held<T> {
    /// Takes what librdkafka gave, with how to give it back; `None` for a null pointer.
    fn new(pointer: *mut T, give_back: unsafe extern "C" fn(*mut T)) -> Option<Self> {
        NonNull::new(pointer).map(|pointer| Self(pointer, give_back))
    }

    /// For librdkafka's functions, while this lives.
    fn pointer(&self) -> *mut T {
        self.0.as_ptr()
    }
}

impl<T> Drop for Held<T> {
    #[expect(unsafe_code, reason = "librdkafka's objects are freed by functions of C")]
    fn drop(&mut self) {
        // SAFETY: the pointer came from the constructor that belongs to this function, and is given back once.
        unsafe { (self.1)(self.0.as_ptr()) }
    }
}

/// The ids of topics; those that the cluster does not know, or that it gives no id, are left out.
pub(super) fn topic_ids<C: ClientContext>(
    client: &Client<C>,
    topics: &BTreeSet<Arc<str>>,
) -> Result<BTreeMap<Arc<str>, String>, KafkaError> {
    if topics.is_empty() {
        return Ok(BTreeMap::new());
    }
    let event = match describe(client, topics) {
        Err(KafkaError::AdminOp(RDKafkaErrorCode::UnsupportedFeature)) => return Ok(BTreeMap::new()),
        answer => answer?,
    };
    let ids = ids_in(&event)?;
    Ok(topics.iter().filter_map(|topic| Some((Arc::clone(topic), ids.get(&**topic)?.clone()))).collect())
}

/// Asks, and waits for the answer.
#[expect(unsafe_code, reason = "the safe crate does not have this question of librdkafka's")]
fn describe<C: ClientContext>(
    client: &Client<C>,
    topics: &BTreeSet<Arc<str>>,
) -> Result<Held<native::rd_kafka_event_t>, KafkaError> {
    let names: Vec<CString> =
        topics.iter().map(|topic| CString::new(&**topic)).collect::<Result<_, _>>().map_err(KafkaError::Nul)?;
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let timed_out = || KafkaError::AdminOp(RDKafkaErrorCode::OperationTimedOut);
    // SAFETY: `client` outlives every pointer here; `names` and `pointers` outlive the collection, which copies them; each
    // object is freed once, by its own function; the queue is ours alone, and librdkafka keeps a count of its uses.
    unsafe {
        let queue = Held::new(native::rd_kafka_queue_new(client.native_ptr()), native::rd_kafka_queue_destroy)
            .ok_or_else(timed_out)?;
        let options = Held::new(
            native::rd_kafka_AdminOptions_new(
                client.native_ptr(),
                native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
            ),
            native::rd_kafka_AdminOptions_destroy,
        )
        .ok_or_else(timed_out)?;
        native::rd_kafka_AdminOptions_set_request_timeout(options.pointer(), TIMEOUT_MS, ptr::null_mut(), 0);
        let collection = Held::new(
            native::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len()),
            native::rd_kafka_TopicCollection_destroy,
        )
        .ok_or_else(timed_out)?;
        native::rd_kafka_DescribeTopics(client.native_ptr(), collection.pointer(), options.pointer(), queue.pointer());
        let wait_ms = i32::try_from(PATIENCE.as_millis()).unwrap_or(TIMEOUT_MS);
        Held::new(native::rd_kafka_queue_poll(queue.pointer(), wait_ms), native::rd_kafka_event_destroy)
            .ok_or_else(timed_out)
    }
}

/// The ids in an answer, by name.
#[expect(unsafe_code, reason = "the safe crate does not have this answer of librdkafka's")]
fn ids_in(event: &Held<native::rd_kafka_event_t>) -> Result<BTreeMap<String, String>, KafkaError> {
    let mut ids = BTreeMap::new();
    // SAFETY: everything that is read here belongs to the event, which outlives this function, and is copied; librdkafka says
    // how long the list is; what may be null is looked at before it is followed.
    unsafe {
        let failed = native::rd_kafka_event_error(event.pointer());
        if failed != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(KafkaError::AdminOp(failed.into()));
        }
        let result = native::rd_kafka_event_DescribeTopics_result(event.pointer());
        let mut count = 0;
        let list = if result.is_null() {
            ptr::null_mut()
        } else {
            native::rd_kafka_DescribeTopics_result_topics(result, &raw mut count)
        };
        for index in 0..if list.is_null() { 0 } else { count } {
            let topic = *list.add(index);
            let error = native::rd_kafka_TopicDescription_error(topic);
            if !error.is_null() && native::rd_kafka_error_code(error) != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                continue;
            }
            let name = native::rd_kafka_TopicDescription_name(topic);
            let id = native::rd_kafka_TopicDescription_topic_id(topic);
            if name.is_null() || id.is_null() {
                continue;
            }
            let id = native::rd_kafka_Uuid_base64str(id);
            if !id.is_null() {
                let text = |text: *const c_char| CStr::from_ptr(text).to_string_lossy().into_owned();
                ids.insert(text(name), text(id));
            }
        }
    }
    ids.retain(|_, id| id != NO_ID);
    Ok(ids)
}
