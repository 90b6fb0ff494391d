//! Values that the pipeline's YAML grants under `grants.config`: addresses, keys of an API, what differs from place to place.
//! What a plugin does with its rows belongs into its own configuration, [`crate::Plugin::Config`].
//!
//! In native tests they are what [`crate::testing::grant_config`] said.

/// One value; `None` where it was not granted.
#[must_use]
pub fn get(key: &str) -> Option<String> {
    #[cfg(target_arch = "wasm32")]
    return crate::guest::bindings::wasi::config::store::get(key).ok().flatten();
    #[cfg(not(target_arch = "wasm32"))]
    crate::testing::outside(|outside| outside.config.get(key).cloned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_was_not_granted_is_not_there() {
        crate::testing::grant_config("region", "eu");
        assert_eq!((super::get("region").as_deref(), super::get("key")), (Some("eu"), None));
    }
}
