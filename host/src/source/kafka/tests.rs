//! Tests over the mock cluster of librdkafka.
