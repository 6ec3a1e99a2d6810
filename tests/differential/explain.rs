//! Which rows of the table explain a difference.

use std::collections::BTreeMap;

use nanoseg_tests::oracle::Engine;

use crate::fault::KnownFault;
use crate::ours::{Ours, Said};
use crate::world::{Question, World};

/// The explanations that a world has.
pub(crate) struct Explained<'a> {
    world: &'a World,
    /// Sets of rows, the smaller first.
    candidates: Vec<Vec<KnownFault>>,
    /// Rewritten worlds, for those sets of rows that rewrite every question alike.
    prepared: BTreeMap<usize, (World, Ours)>,
}

impl<'a> Explained<'a> {
    pub(crate) fn new(engine: Engine, world: &'a World) -> Self {
        let rows: Vec<KnownFault> = KnownFault::ALL
            .into_iter()
            .filter(|fault| fault.engines().contains(&engine))
            .filter(|fault| !fault.is_of_cluster_policies() || !world.cluster_policies.is_empty())
            .collect();
        let mut candidates: Vec<Vec<KnownFault>> = (1..1_usize << rows.len())
            .map(|chosen| {
                let is_chosen = |index: &usize| chosen & (1 << index) != 0;
                (0..rows.len()).filter(is_chosen).map(|index| rows[index]).collect()
            })
            .collect();
        candidates.sort_by_key(|rows: &Vec<KnownFault>| rows.len());
        Self {
            world,
            candidates,
            prepared: BTreeMap::new(),
        }
    }

    /// The fewest rows by which the specification gives the engine's answer.
    pub(crate) fn by(&mut self, question: &Question, allowed: bool) -> Option<Vec<KnownFault>> {
        let applies = |rows: &[KnownFault]| rows.iter().all(|fault| fault.applies(self.world, question));
        let candidates: Vec<usize> = (0..self.candidates.len())
            .filter(|index| applies(&self.candidates[*index]))
            .collect();
        candidates
            .into_iter()
            .find(|index| self.rewritten(*index, question).is(allowed))
            .map(|index| self.candidates[index].clone())
    }

    fn rewritten(&mut self, index: usize, question: &Question) -> Said {
        let rows = &self.candidates[index];
        let mut question = question.clone();
        let rewrite = |question: &mut Question| {
            let mut world = self.world.clone();
            // The last rows first: a pod is doubled as it is after everything else.
            for fault in rows.iter().rev() {
                fault.rewrite(&mut world, question);
            }
            let ours = Ours::read(&world).unwrap();
            (world, ours)
        };
        if rows.iter().any(|fault| fault.is_about_the_question()) {
            let (world, ours) = rewrite(&mut question);
            return ours.ask(&world, &[question]).remove(0);
        }
        let (world, ours) = self
            .prepared
            .entry(index)
            .or_insert_with(|| rewrite(&mut question.clone()));
        // What a row changes in a question depends on the question alone.
        let mut scratch = self.world.clone();
        for fault in rows.iter().rev() {
            fault.rewrite(&mut scratch, &mut question);
        }
        ours.ask(world, &[question]).remove(0)
    }
}
