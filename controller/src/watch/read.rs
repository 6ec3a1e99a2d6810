//! Objects that are read as they are parsed.
//!
//! Law: of all objects of a page, the whole tree of at most one exists at a time. A pod's tree is many times as large as what is
//! read of it, and a client parses a page of them before it tells the first.

use std::borrow::Cow;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use nanoseg_graph::cluster::Object;
use nanoseg_policy::objects::Unreadable;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use super::each_kind;

/// A kind that tells who is who.
pub(super) trait Kubernetes: Resource<DynamicType = ()> + DeserializeOwned {
    /// What is read of it.
    fn object(&self) -> Result<Object, Unreadable>;
}

macro_rules! kinds {
    ($($plural:literal: $kind:ty, $convert:path;)*) => {$(
        impl Kubernetes for $kind {
            fn object(&self) -> Result<Object, Unreadable> {
                $convert(self)
            }
        }
    )*};
}
each_kind!(kinds);

/// What was read of an object of this kind, or why it could not be.
#[derive(Clone, Debug)]
pub(super) struct Read<K> {
    /// What a watch needs to go on: the version, and nothing else.
    meta: ObjectMeta,
    object: Result<Object, Arc<Unreadable>>,
    kind: PhantomData<K>,
}

impl<K> Read<K> {
    pub(super) fn object(self) -> Result<Object, Arc<Unreadable>> {
        self.object
    }
}

impl<'de, K: Kubernetes> Deserialize<'de> for Read<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let tree = K::deserialize(deserializer)?;
        Ok(Self {
            meta: ObjectMeta {
                resource_version: tree.meta().resource_version.clone(),
                ..ObjectMeta::default()
            },
            object: tree.object().map_err(Arc::new),
            kind: PhantomData,
        })
    }
}

impl<K: Kubernetes> Resource for Read<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        K::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        K::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        K::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use k8s_openapi::api::core::v1::Namespace;
    use kube::core::ObjectList;
    use serde_json::json;

    use super::*;

    thread_local! {
        /// Trees that are there, and the most that ever were.
        static TREES: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
    }

    /// A namespace whose tree is counted.
    #[derive(Clone, Debug)]
    struct Counted(Namespace);

    impl<'de> Deserialize<'de> for Counted {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let namespace = Namespace::deserialize(deserializer)?;
            let (there, most) = TREES.get();
            TREES.set((there + 1, most.max(there + 1)));
            Ok(Self(namespace))
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            let (there, most) = TREES.get();
            TREES.set((there - 1, most));
        }
    }

    impl Resource for Counted {
        type DynamicType = ();
        type Scope = <Namespace as Resource>::Scope;

        fn kind((): &()) -> Cow<'_, str> {
            Namespace::kind(&())
        }

        fn group((): &()) -> Cow<'_, str> {
            Namespace::group(&())
        }

        fn version((): &()) -> Cow<'_, str> {
            Namespace::version(&())
        }

        fn plural((): &()) -> Cow<'_, str> {
            Namespace::plural(&())
        }

        fn meta(&self) -> &ObjectMeta {
            &self.0.metadata
        }

        fn meta_mut(&mut self) -> &mut ObjectMeta {
            &mut self.0.metadata
        }
    }

    impl Kubernetes for Counted {
        fn object(&self) -> Result<Object, Unreadable> {
            self.0.object()
        }
    }

    #[test]
    fn one_tree_of_a_page_is_there_at_a_time_and_one_bad_object_keeps_no_other() {
        let item = |name: &str, version: &str| json!({ "metadata": { "name": name, "resourceVersion": version } });
        let page = json!({
            "apiVersion": "v1",
            "kind": "NamespaceList",
            "metadata": { "resourceVersion": "9", "continue": "more" },
            "items": [item("shop", "1"), item("{{ name }}", "2"), item("team", "3")],
        });
        let page: ObjectList<Read<Counted>> = serde_json::from_str(&page.to_string()).unwrap();
        assert_eq!(TREES.get(), (0, 1));
        let versions: Vec<_> = page
            .items
            .iter()
            .map(|read| read.meta().resource_version.clone())
            .collect();
        assert_eq!(versions, ["1", "2", "3"].map(|version| Some(version.to_owned())));
        let read: Vec<bool> = page.items.into_iter().map(|read| read.object().is_ok()).collect();
        assert_eq!(read, [true, false, true]);
    }
}
