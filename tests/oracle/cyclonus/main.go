// An oracle of cyclonus' matcher: reads a world on each line, answers its questions on one line.
//
// The matcher is what decides; this program gives it policies as an API server serves them (defaulted), and the name that the
// destination declares for a port, which the matcher expects from its caller. "bench N" reads one world, answers its questions
// over and over for N seconds on one core and says how often.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"time"

	"github.com/mattfenwick/cyclonus/pkg/matcher"
	"github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

type world struct {
	Namespaces []*corev1.Namespace
	Pods       []*corev1.Pod
	Policies   []*networkingv1.NetworkPolicy
	Questions  []question
}

type question struct {
	Source      end
	Destination end
	Port        int
	Protocol    corev1.Protocol
}

// An end is a pod by its position in the world, or nobody's address.
type end struct {
	Pod *int
	IP  string
}

func (w *world) policy() *matcher.Policy {
	for _, policy := range w.Policies {
		defaults(&policy.Spec)
	}
	return matcher.BuildNetworkPolicies(simplify, w.Policies)
}

const simplify = true

// What an API server fills in.
func defaults(spec *networkingv1.NetworkPolicySpec) {
	if len(spec.PolicyTypes) == 0 {
		spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
		if len(spec.Egress) != 0 {
			spec.PolicyTypes = append(spec.PolicyTypes, networkingv1.PolicyTypeEgress)
		}
	}
	for _, rule := range spec.Ingress {
		defaultPorts(rule.Ports)
	}
	for _, rule := range spec.Egress {
		defaultPorts(rule.Ports)
	}
}

func defaultPorts(ports []networkingv1.NetworkPolicyPort) {
	for i := range ports {
		if ports[i].Protocol == nil {
			protocol := corev1.ProtocolTCP
			ports[i].Protocol = &protocol
		}
	}
}

func (w *world) traffic() []*matcher.Traffic {
	labels := map[string]map[string]string{}
	for _, namespace := range w.Namespaces {
		labels[namespace.Name] = namespace.Labels
	}
	peer := func(end end) *matcher.TrafficPeer {
		peer := &matcher.TrafficPeer{IP: end.IP}
		if end.Pod != nil {
			pod := w.Pods[*end.Pod]
			peer.Internal = &matcher.InternalPeer{
				PodLabels:       pod.Labels,
				NamespaceLabels: labels[pod.Namespace],
				Namespace:       pod.Namespace,
			}
		}
		return peer
	}
	traffic := make([]*matcher.Traffic, len(w.Questions))
	for i, question := range w.Questions {
		traffic[i] = &matcher.Traffic{
			Source:           peer(question.Source),
			Destination:      peer(question.Destination),
			ResolvedPort:     question.Port,
			ResolvedPortName: w.portName(question),
			Protocol:         question.Protocol,
		}
	}
	return traffic
}

// The first name that the destination declares for this port: the matcher takes one.
func (w *world) portName(question question) string {
	if question.Destination.Pod == nil {
		return ""
	}
	spec := &w.Pods[*question.Destination.Pod].Spec
	containers := spec.Containers
	for _, container := range spec.InitContainers {
		// Only these run as long as the pod.
		if policy := container.RestartPolicy; policy != nil && *policy == corev1.ContainerRestartPolicyAlways {
			containers = append(containers, container)
		}
	}
	for _, container := range containers {
		for _, port := range container.Ports {
			if int(port.ContainerPort) == question.Port && port.Protocol == question.Protocol && port.Name != "" {
				return port.Name
			}
		}
	}
	return ""
}

func main() {
	logrus.SetLevel(logrus.ErrorLevel)
	in := json.NewDecoder(bufio.NewReaderSize(os.Stdin, 1<<20))
	if len(os.Args) == 3 && os.Args[1] == "bench" {
		seconds, err := strconv.ParseFloat(os.Args[2], 64)
		check(err)
		runtime.GOMAXPROCS(1)
		var w world
		check(in.Decode(&w))
		bench(w.policy(), w.traffic(), seconds)
		return
	}
	out := bufio.NewWriter(os.Stdout)
	for in.More() {
		var w world
		check(in.Decode(&w))
		policy := w.policy()
		for _, traffic := range w.traffic() {
			answer := byte('0')
			if policy.IsTrafficAllowed(traffic).IsAllowed() {
				answer = '1'
			}
			check(out.WriteByte(answer))
		}
		check(out.WriteByte('\n'))
		check(out.Flush())
	}
}

// Answers all questions at least once, and says how many answers took how many nanoseconds, and how many were "allowed".
func bench(policy *matcher.Policy, traffic []*matcher.Traffic, seconds float64) {
	answered, allowed := 0, 0
	begun := time.Now()
	for elapsed := time.Duration(0); elapsed.Seconds() < seconds; elapsed = time.Since(begun) {
		for _, traffic := range traffic {
			if policy.IsTrafficAllowed(traffic).IsAllowed() {
				allowed++
			}
		}
		answered += len(traffic)
	}
	fmt.Printf("%d %d %d\n", answered, time.Since(begun).Nanoseconds(), allowed)
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
