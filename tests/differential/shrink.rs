//! The smallest world that shows a difference.

use nanoseg_tests::oracle::{Engine, Oracle};
use serde_json::Value;

use crate::explain::Explained;
use crate::ours::Ours;
use crate::world::{Question, World};

/// Without these an object is no longer the one that was asked about.
const STAYS: [&str; 11] = [
    "apiVersion",
    "kind",
    "metadata",
    "name",
    "namespace",
    "status",
    "spec",
    "podIPs",
    "phase",
    "containers",
    "kubernetes.io/metadata.name",
];

/// Takes away whatever can go while the difference stays unexplained.
pub(crate) fn smallest(engine: Engine, oracle: &mut Oracle, world: &World, question: &Question) -> World {
    let questions = vec![question.clone()];
    let mut differs = |world: &World| {
        let Ok(ours) = Ours::read(world) else { return false };
        oracle.ask(&world.to_json()).unwrap();
        let theirs = oracle.answers(1).unwrap()[0];
        !ours.ask(world, &questions)[0].is(theirs) && Explained::new(engine, world).by(question, theirs).is_none()
    };
    let mut smallest = World {
        questions: questions.clone(),
        ..world.clone()
    };
    'smaller: loop {
        let objects = serde_json::to_value(&smallest).unwrap();
        let mut paths = Vec::new();
        removable(&objects, &mut Vec::new(), &mut paths);
        // The larger things first.
        paths.sort_by_key(Vec::len);
        for path in paths {
            let mut fewer = objects.clone();
            remove(&mut fewer, &path);
            let Ok(less) = serde_json::from_value::<World>(fewer.clone()) else {
                continue;
            };
            // A required field comes back as its default: nothing would be gained, again and again.
            if serde_json::to_value(&less).unwrap() != fewer {
                continue;
            }
            let less = World {
                questions: questions.clone(),
                ..less
            };
            if less.is_whole(question) && differs(&less) {
                smallest = less;
                continue 'smaller;
            }
        }
        return smallest;
    }
}

fn removable(value: &Value, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    let inner: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), value)).collect(),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(index, value)| (index.to_string(), value))
            .collect(),
        _ => return,
    };
    for (key, value) in inner {
        let stays = path.is_empty() || STAYS.contains(&key.as_str());
        path.push(key);
        if !stays {
            found.push(path.clone());
        }
        removable(value, path, found);
        path.pop();
    }
}

fn remove(value: &mut Value, path: &[String]) {
    match (value, path) {
        (Value::Object(fields), [last]) => drop(fields.remove(last)),
        (Value::Array(items), [last]) => drop(items.remove(last.parse().unwrap())),
        (value, [first, rest @ ..]) => {
            let inner = match value {
                Value::Array(items) => &mut items[first.parse::<usize>().unwrap()],
                value => &mut value[first],
            };
            remove(inner, rest);
        }
        (_, []) => {}
    }
}
