// Samples of a sensor in, gestures out as they end: a DeepMotion recogniser in C++.
//
//     c++ -std=c++17 gestures.cpp $(pkg-config --cflags --libs gesda) -o gestures
//     ./gestures recognizer.gesda < samples.csv
#include <gesda/gesda.hpp>

#include <iostream>
#include <sstream>

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: " << argv[0] << " RECOGNIZER < SAMPLES\n";
    return 2;
  }
  try {
    gesda::Model model(argv[1]);
    gesda::GestureStream stream(model);
    const auto show = [&model](const std::vector<gesda_event>& events) {
      for (const gesda_event& event : events)
        std::cout << model.class_name(event.gesture) << " from " << event.start << " to " << event.end << " s, "
                  << event.confidence << std::endl;
    };
    std::vector<float> sample(static_cast<std::size_t>(model.info().n_features));
    std::string line;
    while (std::getline(std::cin, line)) {
      for (char& c : line)
        if (c == ',' || c == ';') c = ' ';
      std::istringstream numbers(line);
      for (float& value : sample) numbers >> value;
      if (numbers) show(stream.push(sample));
    }
    show(stream.flush());
    return 0;
  } catch (const std::exception& error) {
    std::cerr << argv[1] << ": " << error.what() << "\n";
    return 1;
  }
}
